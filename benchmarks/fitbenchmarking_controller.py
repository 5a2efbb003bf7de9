"""lmtorch in FitBenchmarking: copy this to `fitbenchmarking/controllers/lmtorch_controller.py`.

There it is imported when `lmtorch` is named in the options; nothing in lmtorch imports it.

    [FITTING]
    software: lmtorch
              scipy_ls

    [MINIMIZERS]
    lmtorch: lm
"""

import numpy as np
from fitbenchmarking.controllers.base_controller import Controller

from lmtorch import Status, least_squares

#: each minimizer by the options that make it; the rest are defaults
MINIMIZERS = {
    "lm": {},
    "lm-geodesic": {"acceleration": True},
    "lm-nielsen": {"damping": "nielsen"},
    "lm-marquardt": {"damping": "marquardt"},
}
EVERY = list(MINIMIZERS)

#: in their kinds of algorithms
KINDS = {kind: [] for kind in Controller.algorithm_check} | {
    "all": EVERY,
    "ls": EVERY,
    "levenberg-marquardt": EVERY,
    "trust_region": ["lm", "lm-geodesic"],
}

#: FitBenchmarking's numbers of an ending
CONVERGED, OUT_OF_EVALUATIONS, NOT_CONVERGED = 0, 1, 2


class LmtorchController(Controller):
    """Levenberg-Marquardt, with or without bounds, on the residuals of a least-squares cost.

    Their Jacobian serves if one was chosen; with the "default" one lmtorch makes forward
    differences, which stay within the bounds.
    """

    controller_name = "lmtorch"

    algorithm_check = KINDS

    jacobian_enabled_solvers = EVERY

    support_for_bounds = True

    def __init__(self, cost_func):
        """
        Initialise the class.

        :param cost_func: Cost function object selected from options.
        :type cost_func: subclass of
                :class:`~fitbenchmarking.cost_func.base_cost_func.CostFunc`
        """
        super().__init__(cost_func)
        self.arguments = None
        self.solution = None

    def setup(self):
        """
        Gather what `least_squares` is called with.
        """
        given = not self.cost_func.jacobian.use_default_jac
        self.arguments = {
            "fun": self.cost_func.eval_r,
            "x0": np.array(self.initial_params, dtype=float),
            "jac": self.cost_func.jac_res if given else "2-point",
            **MINIMIZERS[self.minimizer],
        }
        if self.value_ranges is not None:
            lower, upper = zip(*self.value_ranges, strict=True)
            self.arguments["bounds"] = lower, upper

    def fit(self):
        """
        Run the fit.
        """
        self.solution = least_squares(**self.arguments)

    def cleanup(self):
        """
        Read the parameters, the evaluations (those of differences not counted, as
        scipy does) and how it ended.
        """
        status = self.solution.status
        if status.converged:
            self.flag = CONVERGED
        elif status is Status.EVALUATIONS:
            self.flag = OUT_OF_EVALUATIONS
        else:
            self.flag = NOT_CONVERGED
        self.func_evals = self.solution.nfev
        self.final_params = self.solution.x
