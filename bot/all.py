"Everything of `bot`, in reading order"
import fastai.vision.all as _fastai   # first and whole: its libraries load a sixth slower in another order
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

add_help([*globals().values(), *vars(_fastai.Learner).values()], __package__)   # `?` shows what each parameter is
