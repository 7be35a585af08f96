"""The published mapper classes under their published module paths, for user modules that build on them."""
