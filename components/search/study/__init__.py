"""A study is a set of trials that any number of workers share through a store."""
