"""Read configs.

`shipped` finds the configs of the package, `read` reads a config and applies options, `plain` reads
the config in a checkpoint without running it, and `data_paths` handles the folders that a config
reads its data from. Import from these modules: `shipped` and `plain` need no torch and no mmengine.
"""
