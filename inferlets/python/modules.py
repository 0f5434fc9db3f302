# ruff: noqa: F401
"""The standard modules that programs can import: only what the snapshot holds can be imported.

A guest has no file system, so a module that is missing here is missing for every program. Some are
here because others import them late: `_strptime`, `_colorize`, `shutil` and the encodings.
"""

import _strptime  # type: ignore[import-not-found]
import abc
import argparse
import array
import ast
import asyncio
import base64
import bisect
import calendar
import collections
import colorsys
import contextlib
import contextvars
import copy
import dataclasses
import datetime
import decimal
import difflib
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.punycode
import encodings.raw_unicode_escape
import encodings.unicode_escape
import encodings.utf_16
import encodings.utf_32
import enum
import fractions
import functools
import gettext
import hashlib
import heapq
import html
import html.parser
import inspect
import io
import itertools
import json
import math
import numbers
import operator
import pprint
import queue
import random
import re
import shlex
import shutil
import statistics
import string
import struct
import textwrap
import time
import tomllib
import traceback
import types
import typing
import unicodedata
import urllib.parse
import uuid
import warnings
import weakref
import xml.etree.ElementTree
import zlib

import _colorize  # type: ignore[import-not-found]
