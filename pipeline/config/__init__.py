"""The config: schema, YAML files with source positions, overrides and error messages."""
