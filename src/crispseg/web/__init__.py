"""The page: a network of ``crispseg export``, and the refiner, run by a browser, without a server of ours.

``make_site`` makes the files of the page; ``write_site`` puts them into a folder, ``make_server`` serves them on this
machine. Not here: exporting (``crispseg.exporting``).
"""

from crispseg.web.server import make_server
from crispseg.web.site import Site, make_site, write_site

__all__ = ["Site", "make_server", "make_site", "write_site"]
