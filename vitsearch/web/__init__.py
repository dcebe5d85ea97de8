"""The photos in a browser and over HTTP; `vitsearch.web.app` serves, and nothing here is loaded
before it.
"""
