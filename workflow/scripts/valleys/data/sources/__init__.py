"""Where original images come from, one file a source; a source's options stand in `data.options`."""
