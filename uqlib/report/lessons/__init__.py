"""The figures of the foundations: what each shows at every position of its sliders, computed by the library."""
