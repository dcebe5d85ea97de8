"""The photos in a browser and over HTTP; `vitsearch.web.run` serves, and nothing here is loaded before it."""
