"""The web page and the HTTP interface of a collection, served by `vitsearch.web.app`."""
