"""Images to train and to test with, and the networks that read them."""
