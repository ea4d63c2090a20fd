"""Read configs.

- `shipped` finds the configs of the package.
- `read` reads a config and applies options.
- `plain` reads the config in a checkpoint without running it.
- `input_size` sets the size of a network's input everywhere in a config.
- `data_paths` handles the folders that a config reads its data from.

This file imports none of these modules, because `shipped` and `plain` must work without torch and
mmengine.
"""
