"""The recipes: options in, parts out; the only modules that know zc.buildout."""
