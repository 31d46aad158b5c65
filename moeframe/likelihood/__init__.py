"""Estimators of -log2 p(x): the variational bound in continuous and discrete time, and the probability-flow ODE."""
