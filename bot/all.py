"Everything of `bot`, in reading order"
import fastai.vision.all as _fastai   # first and whole: its libraries load a sixth slower in another order
from .core import *
from .ladder import *
from .images import *
from .folders import *
from .sources import *
from .loader import *
from .augment import *
from .block import *
from .init import *
from .resnet import *
from .weights import *
from .models import *
from .losses import *
from .optimizer import *
from .schedule import *
from .guards import *
from .mixup import *
from .distill import *
from .precision import *
from .watch import *
from .learner import *
from .runs import *

add_help([*globals().values(), *vars(_fastai.Learner).values()], __package__)   # `?` shows what each parameter is
