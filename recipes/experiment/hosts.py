"""The hosts that train together, of which there is one set per process."""

from keras_bar import multi_host

_HOSTS = [multi_host.Hosts()]


def start():
    """Joins the other hosts. Must be called before TensorFlow is used for
    anything else."""
    if not current().strategy:
        _HOSTS.append(multi_host.join())


def current():
    """The `Hosts` that train together: those that have been joined, or this one
    alone."""
    return _HOSTS[-1]
