"`python -m bot <verb> ...` is `bot-<verb> ...`"
import sys
from .cli import main_of

if __name__=='__main__': sys.exit(main_of(sys.argv[1:]))
