"""uqlib: how far can a pretrained vision model be trusted?

Import the room you need: `from uqlib import metrics, duos, temperature, store`. Nothing is imported here, so that
`import uqlib` costs nothing and the metrics never wait for timm.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("uqlib")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0.1.0"
