//! Load generator, rivals and tables of figures.
