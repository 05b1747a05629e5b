"""llama.cpp behind a small typed surface: one model, its working memory, its vocabulary and its adapters.

With `feedback.trace` the only file that imports llama_cpp. It uses the C interface directly, because for a small
model the work per token is less than the overhead of the high-level wrapper. Not safe for several threads:
`feedback.engine` takes turns.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from feedback.decoding import Logits
from feedback.models import ModelFile
from feedback.trace import Trace
from store.errors import CorrigibleError, IntegrityError, UsageError

BATCH = 512  # tokens per call of llama_decode
SEQUENCES = 32  # conversations side by side in one call
SIDE_BY_SIDE = 128  # their tokens in all; more would mostly attend to each other's masked cells
LOGITS = 1 << 24  # floats of logits held at once: 64 MiB
MEMORY = 1 << 28  # bytes of keys and values beyond one conversation of full length

JSON_GRAMMAR = str(llama_cpp.llama_grammar.JSON_GBNF)

Handle = Any  # a C pointer
Tokens = NDArray[np.int32]


# llama.cpp's log would quote file contents on stderr, so it goes to a C function that looks at nothing and only returns
# a constant. One of Python's would have to wait for the interpreter at each of a swap's two hundred lines.
_silent = ctypes.cast(llama_cpp.llama_supports_mmap, llama_cpp.llama_log_callback)
llama_cpp.llama_log_set(_silent, None)


class Llama:
    """One loaded model with working memory for `parallel` conversations of `context` tokens.

    Where that would take more than `MEMORY` bytes, conversations share less: at least one of full length fits.

    Args:
        trace: told what every weight matrix is multiplied by; slows everything down.

    Attributes:
        words: its vocabulary.
        rows: most rows of logits that one call may ask for.
        template: source of its chat template, None when it has none.
        cells: tokens that all conversations together may hold.

    Raises:
        IntegrityError: llama.cpp does not accept the file.
        CorrigibleError: not enough memory (code ``engine``).
    """

    def __init__(
        self, model: ModelFile, context: int, threads: int, parallel: int = 1, trace: Trace | None = None
    ) -> None:
        llama_cpp.llama_backend_init()
        self._model = _load_model(model)
        self.cells = max(context, BATCH, min(context * parallel, MEMORY // _cell_bytes(self._model)))
        self.words = Vocabulary(self._model)
        self.rows = max(SEQUENCES, min(BATCH, LOGITS // self.words.size))
        source = llama_cpp.llama_model_chat_template(self._model, None)
        self.template = source.decode(errors="replace") if source else None
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.cells
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max, params.kv_unified, params.swa_full = SEQUENCES, True, True
        params.n_outputs_max = self.rows
        # Keys and values in single precision, summed in it: half precision moves logits by up to 1e-2 against training.
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        if trace is not None:
            self._trace = trace  # kept alive
            params.cb_eval = trace.callback
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise failed("llama.cpp could not open the model: not enough memory?")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = _Batch()

    def close(self) -> None:
        """Free everything, adapters included; nothing may be called afterwards."""
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def decode(self, tokens: Tokens, places: Tokens, sequences: Tokens, outputs: NDArray[np.bool_]) -> Logits:
        """Feed up to BATCH tokens and return the logits asked for by `outputs`, shape [rows, vocab].

        The result is a view into llama.cpp's buffer, good until the next call.

        Raises:
            CorrigibleError: llama.cpp could not do it (code ``engine``); its memory is in an unknown state.
        """
        self._batch.put(tokens, places, sequences, outputs)
        return self._decode(int(outputs.sum()))

    def step(self, token: int, place: int, sequence: int = 0) -> Logits:
        """Feed one token of a sequence and return the logits after it, shape [1, vocab]; as `decode`."""
        self._batch.put_one(token, place, sequence)
        return self._decode(1)

    def keep(self, sequence: int, count: int) -> int:
        """Forget all but the first `count` tokens of a sequence; return how many stay, 0 when none could."""
        if not count or not llama_cpp.llama_memory_seq_rm(self._memory, sequence, count, -1):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            return 0
        return count

    def clear(self) -> None:
        """Forget every sequence."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def wipe(self) -> None:
        """Forget everything and overwrite it: a number that is not finite would spoil what is computed beside it."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def apply(self, adapters: Sequence[Handle]) -> None:
        """Compute with these adapters, each at scale 1, instead of the ones before."""
        count = len(adapters)
        scales = (ctypes.c_float * count)(*[1.0] * count)
        array = (llama_cpp.llama_adapter_lora_p_ctypes * count)(*adapters)
        if llama_cpp.llama_set_adapters_lora(self._context, array, count, scales) != 0:
            raise failed("The adapters could not be applied.")

    def load_adapter(self, data: bytes) -> Handle:
        """Load a checked adapter from memory; it never touches the disk.

        Raises:
            IntegrityError: it does not fit this model.
        """
        return _load_adapter(self._model, data)

    def free_adapter(self, adapter: Handle) -> None:
        """Free an adapter that is not applied."""
        llama_cpp.llama_adapter_lora_free(adapter)

    def _decode(self, rows: int) -> Logits:
        """Run the batch and return its `rows` of logits."""
        if llama_cpp.llama_decode(self._context, self._batch.raw) != 0:
            raise failed("llama.cpp could not process the conversation.")
        if not rows:
            return np.empty((0, self.words.size), np.float32)
        pointer = llama_cpp.llama_get_logits(self._context)
        buffer: Any = (ctypes.c_float * (rows * self.words.size)).from_address(ctypes.addressof(pointer.contents))
        view: Logits = np.frombuffer(buffer, np.float32).reshape(rows, self.words.size)
        return view


class Vocabulary:
    """Text to tokens and back."""

    def __init__(self, model: Handle) -> None:
        self.handle = self._vocab = llama_cpp.llama_model_get_vocab(model)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.eos, self.bos = (int(get(self._vocab)) for get in (llama_cpp.llama_vocab_eos, llama_cpp.llama_vocab_bos))
        every = range(self.size)
        self._ends = frozenset(t for t in every if llama_cpp.llama_vocab_is_eog(self._vocab, t))
        control = (t for t in every if llama_cpp.llama_vocab_is_control(self._vocab, t))
        self._control = tuple(text for token in control if (text := self.name(token)))
        self._pieces: dict[int, bytes] = {}

    def name(self, token: int) -> str:
        """How a token is written out, e.g. ``<|im_end|>``; empty for none."""
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode(errors="replace") if token >= 0 else ""

    def ends(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return token in self._ends

    def has_control(self, text: str) -> bool:
        """Whether the text writes out a control token."""
        return any(word in text for word in self._control)

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for control tokens."""
        if token not in self._pieces:
            buffer = ctypes.create_string_buffer(1 << 12)
            size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            self._pieces[token] = buffer.raw[: max(0, size)]
        return self._pieces[token]

    def tokens(self, text: str, *, control: bool) -> list[int]:
        """The tokens of `text`, with written-out control tokens read as such when `control`."""
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            raise UsageError("The text is not valid Unicode.", hint="Remove lone surrogates.") from None
        room = len(raw) + 8
        out = (ctypes.c_int32 * room)()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), out, room, False, control)
        if count < 0:
            raise failed("The text could not be cut into tokens.")
        return out[:count]


class Grammar:
    """A grammar followed token by token; frees itself.

    Args:
        text: in llama.cpp's GBNF notation; its start is ``root``.

    Raises:
        UsageError: llama.cpp does not accept it (code ``bad_grammar``).
    """

    def __init__(self, words: Vocabulary, text: str) -> None:
        self._handle = llama_cpp.llama_sampler_init_grammar(words.handle, text.encode(), b"root")
        if not self._handle:
            raise UsageError("The grammar cannot be used.", hint="Use a simpler schema.", code="bad_grammar")
        self._data = np.zeros(words.size, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)]))
        self._ids = np.arange(words.size, dtype=np.int32)

    def mask(self, logits: Logits) -> None:
        """Set the logits, shape [vocab], of all tokens that may not come next to minus infinity."""
        self._data["id"], self._data["logit"] = self._ids, logits
        pointer = ctypes.cast(self._data.ctypes.data, llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(data=pointer, size=len(self._data), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._handle, ctypes.byref(array))
        logits[self._data["id"]] = self._data["logit"]

    def accept(self, token: int) -> None:
        """Take a token that the mask left possible."""
        llama_cpp.llama_sampler_accept(self._handle, token)

    def __del__(self) -> None:
        """Free llama.cpp's half."""
        if getattr(self, "_handle", None):
            llama_cpp.llama_sampler_free(self._handle)


def schema_grammar(schema: str) -> str:
    """Return the grammar of JSON texts that satisfy a JSON schema.

    Raises:
        UsageError: the schema is none, or uses what grammars cannot say (code ``bad_schema``).
    """
    try:
        return str(llama_cpp.llama_grammar.json_schema_to_gbnf(schema))
    except (Exception, RecursionError):  # the converter raises whatever the schema made it trip over
        hint = "Give a JSON schema without external references."
        raise UsageError("The JSON schema cannot be used.", hint=hint, code="bad_schema") from None


class _Batch:
    """Tokens for one call of llama_decode, in arrays that are made once."""

    def __init__(self) -> None:
        self._token, self._place = np.zeros(BATCH, np.int32), np.zeros(BATCH, np.int32)
        self._output, self._count = np.zeros(BATCH, np.int8), np.ones(BATCH, np.int32)
        self._names = np.arange(SEQUENCES, dtype=np.int32)
        self._address = self._names.ctypes.data
        self._sequence = np.zeros(BATCH, np.uintp)  # per token, the address of its sequence's name
        self.raw = llama_cpp.llama_batch(token=_pointer(self._token, ctypes.c_int32),
                                         pos=_pointer(self._place, ctypes.c_int32),
                                         n_seq_id=_pointer(self._count, ctypes.c_int32),
                                         seq_id=_pointer(self._sequence, ctypes.POINTER(ctypes.c_int32)),
                                         logits=_pointer(self._output, ctypes.c_int8))  # fmt: skip

    def put(self, tokens: Tokens, places: Tokens, sequences: Tokens, outputs: NDArray[np.bool_]) -> None:
        """Fill the batch with up to BATCH tokens."""
        n = len(tokens)
        self._token[:n], self._place[:n], self._output[:n] = tokens, places, outputs
        self._sequence[:n] = self._address + sequences.astype(np.uintp) * self._names.itemsize
        self.raw.n_tokens = n

    def put_one(self, token: int, place: int, sequence: int) -> None:
        """Fill the batch with one token of a sequence whose logits are wanted."""
        self._token[0], self._place[0], self._output[0] = token, place, 1
        self._sequence[0] = self._address + sequence * self._names.itemsize
        self.raw.n_tokens = 1


def _pointer(array: NDArray[Any], kind: Any) -> Any:  # noqa: ANN401 - ctypes
    """A C pointer to the array's first element; the array must outlive it."""
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


def _load_model(model: ModelFile) -> Handle:
    """Load the weights and have llama.cpp check every one."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers, params.check_tensors = 0, True
    handle = llama_cpp.llama_model_load_from_file(str(model.path).encode(), params)
    if not handle:
        raise IntegrityError("llama.cpp does not accept the model file.", hint="Fetch the model again.")
    return handle


def _cell_bytes(model: Handle) -> int:
    """Bytes of keys and values per token, in single precision."""
    head = int(llama_cpp.llama_model_n_embd(model)) // int(llama_cpp.llama_model_n_head(model))
    numbers = 2 * int(llama_cpp.llama_model_n_layer(model)) * int(llama_cpp.llama_model_n_head_kv(model)) * head
    return max(1, 4 * numbers)


def _load_adapter(model: Handle, data: bytes) -> Handle:
    """Load an adapter from memory through a C file over the bytes."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "fmemopen"):
        raise failed("This platform cannot load adapters from memory: its C library has no fmemopen.")
    libc.fmemopen.restype, libc.fmemopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.fclose.argtypes = [ctypes.c_void_p]
    file = libc.fmemopen(data, len(data), b"r")
    if not file:
        raise failed("The adapter could not be loaded: not enough memory?")
    handle = llama_cpp.llama_adapter_lora_init_from_file_ptr(model, file)
    libc.fclose(file)
    if not handle:
        raise IntegrityError("The adapter does not fit this model.", hint="It was made for another base.")
    return handle


def failed(message: str) -> CorrigibleError:
    """Return the error for what the caller cannot help."""
    return CorrigibleError(message, code="engine")
