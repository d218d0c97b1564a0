"""Recipes: one YAML file per experiment."""
