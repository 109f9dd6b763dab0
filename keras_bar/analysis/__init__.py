"""The channel flow of a model: which channels are alive, and who reads them."""
