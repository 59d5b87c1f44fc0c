"""The pyfunc model of a promoted checkpoint (MLflow's "models from code": this file itself is stored with the model).

Loading it needs this package in the version that logged it; the checkpoint's bytes are stored with the model.
"""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from mlflow_project.serving.log_model import read_requests
from mlflow_project.serving.policy import ServedPolicy, serving_config
from mlflow_project.serving.resolve import ARTIFACT
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.facts import assume
from rlinf_isaac.checkpoint.of_task import playable
from rlinf_isaac.ground.errors import BundleError, InvalidJob


class PolicyModel(PythonModel):
    """Observations -> action chunks, bitwise the same as those of `serve` and of the evaluation for the same noise."""

    # A switch of MLflow. Without it each load warns that `predict` has no type hints, which cannot describe arrays.
    _skip_type_hint_validation = True

    def load_context(self, context: PythonModelContext) -> None:
        """Verify the bundle, then load it.

        Raises:
            BundleError: the bundle is damaged, or is not the one that was logged.
        """
        settings = context.model_config or {}
        bundle = read_bundle(context.artifacts[ARTIFACT])
        if bundle.digest != settings["checkpoint"]:
            cause = f"{bundle.path} is the bundle {bundle.digest}, but {settings['checkpoint']} was logged"
            raise BundleError.of("model-replaced", cause, "log the checkpoint again")
        bundle = playable(assume(bundle, settings.get("assumed") or {}), settings.get("task"))
        config = serving_config(bundle, settings["device"])
        self._policy = ServedPolicy(bundle, config, any_prompt=settings["any_prompt"])

    def predict(self, context, model_input, params=None):  # no type hints: MLflow would derive a schema from them
        """Action chunks (N, chunk, A) float32, in robot units, for a dict of the arrays in `log_model.inputs_of`.

        Raises:
            MlflowException: an observation is refused, for the same reasons and with the same codes as by `serve`;
                `mlflow models serve` then answers with status 400.
        """
        try:
            return self._policy.infer(read_requests(model_input, params, self._policy.spec))
        except InvalidJob as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


set_model(PolicyModel())
