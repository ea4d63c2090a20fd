"""Parameters and multiply-adds, stages, receptive fields, and the paper's figures."""

import mixdet.plugin
