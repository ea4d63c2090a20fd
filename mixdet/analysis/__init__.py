"""Looking at detectors: pictures of what they find, parameters and multiply-adds, comparisons."""
