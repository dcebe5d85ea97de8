"""The pipeline: the only place where the way from files to stored vectors is written down."""

from vitsearch.pipeline.clock import Clock, trace_file
from vitsearch.pipeline.decoding import Decoding, choose_decoding, decode_limit, record_decoding
from vitsearch.pipeline.looking import Looking
from vitsearch.pipeline.loss import check_loss
from vitsearch.pipeline.run import Pipeline

__all__ = ["Clock", "Decoding", "Looking", "Pipeline", "check_loss", "choose_decoding", "decode_limit", "record_decoding", "trace_file"]
