"""Whatever reads a config.

`shipped` finds those of the package, `read` reads one and applies options, `plain` reads the one in
a checkpoint without running it, `data_paths` says where a config looks for its data.
"""
