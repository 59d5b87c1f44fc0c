from rlinf_isaac.api import Policy as Policy
from rlinf_isaac.api import load_bundle as load_bundle
from rlinf_isaac.api import load_config as load_config
from rlinf_isaac.api import load_policy as load_policy
from rlinf_isaac.api import make_env as make_env
from rlinf_isaac.api import open_dataset as open_dataset
from rlinf_isaac.ground.errors import BundleError as BundleError
from rlinf_isaac.ground.errors import DatasetError as DatasetError
from rlinf_isaac.ground.errors import InvalidJob as InvalidJob
from rlinf_isaac.ground.errors import Problem as Problem

__version__: str
__all__: list[str]
