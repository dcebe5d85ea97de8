"""Fuzzing: mutated files of strangers, given to what reads them, in processes that are forked for
each batch of cases.
"""
