"""From a trained detector to files that other runtimes load: fuse, export, quantize, verify."""

import mixdet.plugin
