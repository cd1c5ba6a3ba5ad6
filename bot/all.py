"Everything of `bot`, in reading order"
from .ladder import *
from .data import *
from .augment import *
from .init import *
from .models import *
from .losses import *
from .optimizer import *
from .schedule import *
from .callbacks import *
from .learner import *
from .checkpoint import *

from fastai.learner import Learner as _Learner
add_help([*globals().values(), *vars(_Learner).values()], __package__)   # `?` shows what each parameter is
