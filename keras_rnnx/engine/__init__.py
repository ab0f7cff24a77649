"""Engine: how a step is repeated over time, and differentiated."""

from keras_rnnx.engine import cudnn
from keras_rnnx.engine import devices
from keras_rnnx.engine.backward import Backward
from keras_rnnx.engine.backward import Checkpointed
from keras_rnnx.engine.backward import Full
from keras_rnnx.engine.backward import Truncated
from keras_rnnx.engine.backward import read as read_backward
from keras_rnnx.engine.masking import begun
from keras_rnnx.engine.masking import last_real
from keras_rnnx.engine.masking import real_steps_first
from keras_rnnx.engine.masking import resets_of_real_steps
from keras_rnnx.engine.masking import select
from keras_rnnx.engine.masking import swap_time_and_batch
from keras_rnnx.engine.masking import zero_padding
from keras_rnnx.engine.padding import bucket
from keras_rnnx.engine.padding import pad_time
from keras_rnnx.engine.parts import in_parts
from keras_rnnx.engine.plan import CHUNKS
from keras_rnnx.engine.plan import Plan
from keras_rnnx.engine.plan import choose
from keras_rnnx.engine.products import Prepared
from keras_rnnx.engine.products import Products
from keras_rnnx.engine.run import run
from keras_rnnx.engine.run import run_in_segments
from keras_rnnx.engine.scan import run_in_chunks
from keras_rnnx.engine.scan import worth_chunks
from keras_rnnx.engine.xla import device_type
from keras_rnnx.engine.xla import failure
from keras_rnnx.engine.xla import for_any_device
from keras_rnnx.engine.xla import is_enclosed
from keras_rnnx.engine.xla import is_for_any_device
from keras_rnnx.engine.xla import is_portable
from keras_rnnx.engine.xla import portable
