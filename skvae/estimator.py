"""The scikit-learn face: parameters, validation, public methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skvae._sklearn import fit_context
from skvae.facts import FactsMixin
from skvae.fitted import FittedModel
from skvae.fitting import fit_model
from skvae.interpolation import InterpolationMixin
from skvae.model.latent import LatentDensity
from skvae.model.network import NetworkFactory
from skvae.parameters import CONSTRAINTS, check_latent_points
from skvae.prediction import PredictionMixin
from skvae.sampling import SamplingMixin
from skvae.scoring import ScoringMixin
from skvae.shards import Shard
from skvae.table import as_table
from skvae.table.given import read_row


class VAEEstimator(
    SamplingMixin,
    PredictionMixin,
    FactsMixin,
    InterpolationMixin,
    ScoringMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    CallbackSupportMixin,
    BaseEstimator,
):
    """Variational autoencoder for tables.

    A latent variable model of rows [1]_: a row x has a hidden z ~ N(0, I) of a few dimensions, and its cells are drawn
    from p(x | z), which a neural network, the decoder, computes from z. A second network, the encoder, computes from x where
    its z is likely to be: q(z | x) = N(z_mean, z_std^2). Both are trained together, by gradient steps on the evidence lower
    bound of the log-likelihood.
    It is a transformer (`transform`), a generator (`sample`) and a density (`score_samples`). Columns are standardised inside.

    Parameters
    ----------
    latent_dim : int, default=8
        Number of latent units.
    hidden_layer_sizes : array-like of int, default=(128, 128)
        Widths of the encoder's hidden layers; the decoder has them in reverse order. ``()`` makes both linear; with
        ``likelihood="normal"`` the model is then factor analysis.
    activation : {"identity", "logistic", "tanh", "relu", "elu", "silu", "gelu", "softplus"}, default="silu"
        Activation of the hidden layers.
    likelihood : str or dict, default="auto"
        Distribution of a cell, given z, in the columns that are not categorical. ``"normal"``: a number with Gaussian noise,
        whose deviation is learnt per column. ``"quantile_normal"``: a number made standard normal by the empirical
        distribution of its column [4]_; values that many rows share are levels. ``"bernoulli"``: one of two values, or a
        fraction between them. ``"poisson"``, ``"negative_binomial"``, ``"zero_inflated_negative_binomial"`` [7]_: a count.
        ``"auto"``: ``"bernoulli"`` for booleans and columns of exactly two distinct values; for other numbers
        ``"quantile_normal"`` from 1000 rows on and ``"normal"`` below. A dict such as
        ``{"poisson": ["visits"], "normal": [0, 3]}`` states kinds for columns, by name or index; the others are ``"auto"``.
    categorical_features : "from_dtype", array-like of {bool, int, str} or None, default="from_dtype"
        Columns that are categories beside those of a categorical or text dtype: a mask, indices or names. Each level has a
        logit of its own.
    exposure : str, int or None, default=None
        The column, by name or index, that all counts are in proportion to, such as the time observed. The mean of a count is
        then ``exposure * exp(log rate)``, and the decoder models the log rate [6]_. Its cells must be positive, and may be
        missing only in rows without a count. It is itself modelled, as ``"quantile_normal"`` unless `likelihood` states
        ``"normal"`` for it. None gives all rows the same exposure.
    bounds : "observed", None or dict of column to (low, high), default="observed"
        Which numbers and dates `sample`, `inverse_transform` and `impute` make. ``"observed"``: from the smallest to the
        largest of the training rows, with as many decimals as the column has, in its smallest step. A dict such as
        ``{"age": (0, None)}`` states the range of columns, by name or index, None where there is no limit; the others are
        ``"observed"``. None leaves all numbers as the model has them, neither cut nor rounded: it is that model that
        `score_samples` speaks of.
    protect : int or None, default=None
        Levels that fewer rows share than this number are read as missing cells, and not learnt; nor are the extremes of
        numbers and dates: the `protect` smallest cells of a column are read as the largest of them, the `protect` largest as
        the smallest. No such level or extreme is in any new row. (This guards rare values, and is no proof of privacy.)
    ignore : "auto", None, array-like of columns, or dict of column to {"drop", "sequence", "carry"}, default="auto"
        Columns that are not modelled, by name or index, and what becomes of them. ``"drop"``: they are in no output (as those
        of a list are). ``"sequence"``: new rows have new keys, after the pattern of the old. ``"carry"``: new rows have
        missing cells. Under the last two, `impute` and `reconstruct` leave the rows' own cells. ``"auto"`` finds texts most of
        which are distinct, and integers of a frame that are all distinct where chance would have repeated many, and names
        them in a warning: keys are ``"sequence"``, other texts ``"carry"``. None models all columns.
    constraints : list of Constraint or None, default=None
        Rules that new and filled rows keep, and that the training rows must keep: see `skvae.constraints`.
    handle_unknown : {"error", "ignore"}, default="error"
        What to do with a level, or a third value of a two-valued column, that no training row held: refuse it, or treat it
        as missing, as `HistGradientBoostingClassifier` does.
    latent_density : {"auto", "prior", "aggregated_posterior", "gaussian", "mixture"}, default="auto"
        p(z) of the fitted model: `sample` draws z from it, `score_samples` and `impute` weight z by it. ``"prior"`` is
        N(0, I); training pulls the posteriors towards it, but not all the way. ``"aggregated_posterior"`` is the mean of the
        training rows' posteriors q(z | x_i) (of at most 20,000 rows, evenly spaced), ``"gaussian"`` the normal with its mean
        and covariance, ``"mixture"`` a mixture of up to 40 normals fitted to it, as many as suit rows left out. ``"auto"`` is
        ``"mixture"``, but ``"prior"`` for linear networks, where it is exact.
    beta : float, default=1.0
        Weight of the KL term [2]_. 1 is the evidence lower bound.
    alpha : float, default=0.0
        L2 penalty: half of `alpha` times the sum of squares of both networks' weights is added to the loss summed over the
        rows. It acts as a normal prior of variance ``1 / alpha`` on each weight.
    batch_size : int, default=128
        Largest number of rows per gradient step; an epoch is cut into batches of equal size.
    learning_rate_init : float, default=1e-2
        Initial step size of Adam, and in proportion to it that of Muon [8]_, which trains the weights between hidden units and
        those of numbers. It falls with the inverse square root of the number of steps, and to 0 at the end.
    max_iter : int or None, default=None
        Largest number of epochs (passes over the training rows). None takes as many as hold 4000 gradient steps.
    tol : float, default=0.01
        Gain in validation score, in nats per row and column of X, over `n_iter_no_change` looks, that is worth going on for.
    early_stopping : bool, default=True
        Whether to set `validation_fraction` of the rows aside, to end training when the score on them has stopped to gain, and
        to keep the parameters with the best one. While training goes on it is the score of the parameters' average over the
        last ninth of the steps. At the end the learning rate falls to 0 over 40 % of the steps so far. Tables of fewer than 10
        rows are trained whole.
    validation_fraction : float, default=0.1
        Share of the rows set aside when `early_stopping` is on.
    n_iter_no_change : int, default=5
        Number of looks at the validation score that `tol` speaks of. Looks are 50 steps apart, and later 15 % of the steps so
        far: five looks double these.
    warm_start : bool, default=False
        Whether `fit` goes on from the parameters of the previous fit. Columns, their scales and the architecture stay as
        they were, and so does the latent density, unless `latent_density` names another one.
    encoder : callable, torch.nn.Module or None, default=None
        A factory ``encoder(n_inputs, n_outputs) -> torch.nn.Module`` that maps (n, n_inputs) encoded rows to (n,
        2 * latent_dim): z_mean and log z_std^2, side by side. A module is copied. None is a multi-layer perceptron.
    decoder : {"auto", "factorized", "autoregressive"}, callable or torch.nn.Module, default="auto"
        ``"factorized"`` is a multi-layer perceptron that reads z: given z, cells are independent, the textbook model.
        ``"autoregressive"`` reads z and, for each cell, the cells before it, through masked weights [5]_; its numbers are
        mixtures of eight normals. It draws and scores; an auxiliary factorized decoder beside it, trained on the same z [9]_,
        decodes latent points. It is the better generator and density from about 1000 rows on. ``"auto"`` takes it for
        tables of at least 1000 rows and at most 256 columns, unless the network is linear or `likelihood` is one kind for all
        columns. A factory (or module) makes a factorized decoder, from (n, latent_dim) to the parameters of the likelihood:
        means of ``"normal"``, logits of ``"bernoulli"`` and of levels, log means of counts (at the mean exposure).
    device : str, default="cpu"
        Where to train: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
    verbose : bool or int, default=False
        Whether to print the loss, some twenty times over the budget, and how many rows are done in `sample`, `impute` and
        `score_samples` that take longer than two seconds.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the split, the order of the rows and the noise: an int makes repeated fits equal to the
        last bit. The global generators of torch and Python are neither read nor changed.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns seen at fit.
    feature_names_in_ : ndarray of str of shape (n_features,)
        Their names, if the table had string names.
    n_iter_ : int
        Number of epochs run.
    loss_curve_ : list of float
        Loss of each epoch, averaged over its batches, in nats per row and in the units of X: the negative evidence lower
        bound, with the KL term weighted by `beta`. An auxiliary decoder's -log p(x | z) counts 1.5 times beside it.
    validation_scores_ : list of float or None
        Minus the loss of the validation rows at each look; None without early stopping.
    best_validation_score_ : float or None
        The largest of them, that of the parameters kept.
    history_ : dict of str to (list of float)
        The fit on one axis of epochs. By ``"epoch"``: ``"loss"``, its parts ``"reconstruction"``, that is -log p(x | z), and
        ``"kl"``, both before `beta`, in nats per row, and the ``"learning_rate"`` at its end. By ``"validation_epoch"``, which
        may lie within an epoch: ``"validation_score"``.
    kl_per_unit_ : ndarray of shape (latent_dim,)
        KL(q(z | x) || N(0, 1)) of each latent unit in nats, averaged over (at most 20,000, evenly spaced) training rows.
    active_units_ : int
        Number of latent units whose z_mean varies over the rows with a variance above 0.01 [3]_.
    likelihood_ : dict of str or int to str
        Kind of each column, by name (or index, for arrays): those of `likelihood`, ``"categorical"``, ``"constant"`` or, if it
        is not modelled, ``"ignored"``.
    decoder_ : {"factorized", "autoregressive"}
        The decoder that was fitted. One of your own is ``"factorized"``.
    latent_density_name_ : {"prior", "aggregated_posterior", "gaussian", "mixture"}
        The latent density that `latent_density` stood for at fit.
    latent_density_ : LatentDensity
        It: ``sample(n_samples, generator)`` draws z, ``log_prob(z)`` is its log density in nats, and ``name`` is
        ``"gaussian"`` also for a mixture of fewer than 100 rows. It is fitted when it is first needed, to posteriors that
        `fit` keeps, so that a transformer does not wait for it.
    columns_ : ColumnFacts
        Kind, share of missing cells, range, step, levels and policy of each column: prints as a table.
    n_parameters_ : int
        Number of free parameters of p(x | z): of the decoder, without masked weights, and of the likelihood.
    noise_std_ : dict
        For each ``"normal"`` column of a factorized decoder, its standard deviation given z, in its own units.
    information_per_column_ : dict
        What z alone tells of each column, in nats: the mutual information of both.
    module_ : torch.nn.Module
        The trained network. It reads and writes *encoded* rows.

    See Also
    --------
    sklearn.decomposition.FactorAnalysis : The linear special case.
    sklearn.mixture.GaussianMixture : A density with clusters.

    References
    ----------
    .. [1] Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] Higgins et al., "beta-VAE: learning basic visual concepts with a constrained variational framework", ICLR 2017.
    .. [3] Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    .. [4] Liu, Lafferty & Wasserman, "The nonparanormal", JMLR 10, 2009.
    .. [5] Germain, Gregor, Murray & Larochelle, "MADE: masked autoencoder for distribution estimation", ICML 2015.
    .. [6] McCullagh & Nelder, "Generalized linear models", 2nd edition, section 6.3, 1989.
    .. [7] Lambert, "Zero-inflated Poisson regression", Technometrics 34, 1992.
    .. [8] Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    .. [9] Lucas & Verbeek, "Auxiliary guided autoregressive variational autoencoders", ECML PKDD 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAEEstimator
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> vae = VAEEstimator(latent_dim=2, max_iter=20, random_state=0).fit(X)
    >>> vae.transform(X).shape
    (178, 2)
    >>> rows = vae.sample(3, random_state=0)
    >>> rows.shape, list(rows.columns) == list(X.columns)
    ((3, 13), True)
    """

    _parameter_constraints: dict = CONSTRAINTS

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        hidden_layer_sizes: Sequence[int] | int = (128, 128),
        activation: str = "silu",
        likelihood: str | dict[str, Any] = "auto",
        categorical_features: Any = "from_dtype",
        exposure: str | int | None = None,
        bounds: str | dict[Any, Any] | None = "observed",
        protect: int | None = None,
        ignore: Any = "auto",
        constraints: Sequence[Any] | None = None,
        handle_unknown: str = "error",
        latent_density: str = "auto",
        beta: float = 1.0,
        alpha: float = 0.0,
        batch_size: int = 128,
        learning_rate_init: float = 1e-2,
        max_iter: int | None = None,
        tol: float = 0.01,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        encoder: NetworkFactory | torch.nn.Module | None = None,
        decoder: str | NetworkFactory | torch.nn.Module = "auto",
        device: str = "cpu",
        verbose: bool | int = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.likelihood = likelihood
        self.categorical_features = categorical_features
        self.exposure = exposure
        self.bounds = bounds
        self.protect = protect
        self.ignore = ignore
        self.constraints = constraints
        self.handle_unknown = handle_unknown
        self.latent_density = latent_density
        self.beta = beta
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.encoder = encoder
        self.decoder = decoder
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    # ---------------------------------------------------------------------------------------------------------- fitting

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> VAEEstimator:
        """Fit the model to the rows of X.

        Nothing is set before the fit has succeeded: whatever fails or interrupts it, a former model answers as before.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Training rows. What `sample` and `inverse_transform` return has this container, its names and its dtypes.
        y : Ignored
            Not used, present by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss. Rows of weight 0 are left out.

        Returns
        -------
        self : VAEEstimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If X holds what the model cannot read.
        DivergenceError
            If the loss does not stay finite: a ValueError that names the likely column.
        """
        learnt = self._learn(X, y, sample_weight, go_on=self.warm_start, n_epochs=self.max_iter, schedule=True)
        return self._set(learnt)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> VAEEstimator:
        """Go once through the rows of X, from the present parameters.

        The first call settles the columns: their kinds, locations, scales and ranges. The learning rate stays at
        `learning_rate_init`, no rows are set aside, and the optimiser's moments are kept between calls. It raises what `fit`
        raises, and the model then answers as before.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Training rows.
        y : Ignored
            Not used, present by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss.

        Returns
        -------
        self : VAEEstimator
            The estimator.
        """
        return self._set(self._learn(X, y, sample_weight, go_on=True, n_epochs=1, schedule=False))

    @with_callbacks
    def _learn(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        go_on: bool,
        n_epochs: int | None,
        schedule: bool,
        shard: Shard | None = None,
    ) -> dict[str, Any]:
        """`fit_model`, after which callbacks are torn down: they may still fail before anything is set."""
        former = None
        if go_on and self.__sklearn_is_fitted__():
            former = self._fitted

        return fit_model(self, X, y, sample_weight, former=former, n_epochs=n_epochs, schedule=schedule, shard=shard)

    def _set(self, learnt: dict[str, Any]) -> VAEEstimator:
        """Become what a fit has learnt, in one assignment that nothing can interrupt half-way."""
        # without what the former fit has set, such as names that X no longer has
        kept = {name: value for name, value in vars(self).items() if not name.endswith("_")}
        self.__dict__ = kept | learnt
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return "_fitted" in vars(self)

    def _model(self) -> FittedModel:
        """What the fit learnt; an error before it."""
        check_is_fitted(self)
        return self._fitted

    def _read(self, X: Any) -> np.ndarray:
        """Values of rows with the columns of the training table, shape (n_samples, n_features), NaN where missing."""
        model = self._model()
        X = as_table(X)
        validate_data(self, X, skip_check_array=True, reset=False)
        return model.table.read(X, self.handle_unknown)

    @property
    def module_(self) -> torch.nn.Module:
        """torch.nn.Module : the trained network."""
        return self._fitted.network

    @property
    def latent_density_(self) -> LatentDensity:
        """LatentDensity : p(z), fitted when it is first asked for."""
        return self._model().density("auto")

    # ------------------------------------------------------------------------------------------------ rows <-> latents

    def transform(self, X: Any) -> np.ndarray:
        """Latent means of rows.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.

        Returns
        -------
        z_mean : ndarray of shape (n_samples, latent_dim)
            Mean of q(z | x) of each row, in the float dtype of X (float64 if X is not of floats).
        """
        return self.posterior(X)[0]

    def posterior(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of q(z | x).

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.

        Returns
        -------
        z_mean : ndarray of shape (n_samples, latent_dim)
            Mean of each row's latent variable.
        z_std : ndarray of shape (n_samples, latent_dim)
            Its standard deviation (not the variance, nor the logarithm of either).
        """
        return self._model().posterior(self._read(X))

    def inverse_transform(self, X: Any) -> Any:
        """Decode latent points: the mean of p(x | z).

        Parameters
        ----------
        X : array-like of shape (n_samples, latent_dim)
            Latent points.

        Returns
        -------
        X_original : ndarray, pandas or polars DataFrame of shape (n_samples, n_features)
            Decoded rows in the units and the container of the training table. Columns of integers are rounded, those of
            booleans and categories hold the most probable level. Beside an autoregressive decoder, the auxiliary one tells
            every cell from z alone.
        """
        model = self._model()
        return model.decode(torch.from_numpy(check_latent_points(X, model.network.latent_dim)))

    def reconstruct(self, X: Any) -> Any:
        """Encode rows and decode their latent means.

        Parameters
        ----------
        X : array-like, pandas or polars DataFrame of shape (n_samples, n_features)
            Rows, with the columns of the training table.

        Returns
        -------
        X_hat : ndarray, pandas or polars DataFrame of shape (n_samples, n_features)
            ``inverse_transform(transform(X))``, in the container of the training table.
        """
        z_mean, _ = self.posterior(X)
        return self._model().decode(torch.from_numpy(z_mean), beside=X)

    def _latent_mean(self, row: Any, name: str) -> np.ndarray:
        """z_mean of one row, shape (latent_dim,); errors call it `name`."""
        # a table of one row is read as tables are
        values = read_row(self._model().table, row, name)
        if values is None:
            values = self._read(row)
        z_mean, _ = self._model().posterior(values)
        return z_mean[0]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
