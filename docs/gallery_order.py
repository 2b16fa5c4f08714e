"""The order of the gallery: from the first fit to shipping."""

STORY = (
    "quickstart",
    "plot_which_z",
    "plot_evaluate",
    "plot_latent_dim",
    "plot_digits",
    "plot_imputation",
    "plot_anomalies",
    "plot_augmentation",
    "plot_rare_classes",
    "plot_counts",
    "plot_custom_networks",
    "plot_saving",
    "distributed_fit",
)


def place_of(filename):
    """Position of an example."""
    return STORY.index(filename.removesuffix(".py"))
