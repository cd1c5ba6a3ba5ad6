"Dependencies and commands from settings.ini; all else is in pyproject.toml"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read_file(Path(__file__).with_name('settings.ini').open())
def lines(k): return cfg['DEFAULT'][k].strip().splitlines()

extras = {k.removesuffix('_requirements'): lines(k) for k in cfg['DEFAULT'] if k.endswith('_requirements')}
setup(install_requires=lines('requirements'), extras_require=extras,
    entry_points=dict(console_scripts=lines('console_scripts'), nbdev=['bot=bot._modidx:d']))
