"""The merged model: the mixture and its routing, sampling, EMA, FLOPs, offloading."""
