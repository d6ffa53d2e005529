/* Two passes of a separable resize over the pixels of a picture, with vector instructions.

Pillow's own resize computes one pixel at a time. This one computes the same sums, bit for bit, on rows of
numbers that the compiler turns into vector instructions (SSE4.1, AVX2, AVX-512 or NEON): nearly four times as
fast with GCC and glibc. What each output pixel is made of (start, coefficients) is decided in resample.py,
where it can be read; here is only the loop.

The picture is not copied. It is a buffer of three bytes a pixel, or Pillow's own memory of four, which comes
as Arrow's C data interface, a stable binary interface
(https://arrow.apache.org/docs/format/CDataInterface.html). The interpreter's lock is released meanwhile. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Coefficients are integers, 1 << BITS standing for 1; see resample.py. */
#define BITS 22
#define HALF (1 << (BITS - 1))

#define BYTES 3       /* of a pixel: R, G, B */
#define ARROW_BYTES 4 /* of one of Pillow's: there is one more, which is not used */
#define MOVED 4       /* of a pixel and what follows it, which is overwritten: one move instead of two */

#define ROWS 16             /* of the picture that are resized at once, side by side in memory */
#define WIDE (ROWS * BYTES) /* numbers that are summed up at once, in the second pass as well */
#define MOST_SIDE (1 << 20) /* products of two sides, bytes and all, are far from overflowing */
#define ITEM ((Py_ssize_t)sizeof(int32_t))

/* GCC makes one version for each of these and the right one is chosen when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "sse4.1", "default")))
#else
#define FOR_EVERY_CPU
#endif

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

/* The pixels of a picture, of `step` bytes each. */
struct picture {
    const uint8_t *pixels;
    Py_ssize_t width, height, step;
};

/* What each of `size` outputs is made of: inputs start[i] to start[i] + taps, times coefs[i * taps ...]. */
struct axis {
    const int32_t *start, *coefs;
    Py_ssize_t size, taps;
};

/* Memory of the passes. Numbers that are multiplied are kept as wide as their products: they are widened once
and used many times. */
struct work {
    uint8_t *beside;  /* [columns][ROWS][BYTES]: rows of the picture, laid side by side */
    int32_t *wide;    /* the same numbers */
    int32_t *between; /* [taps + ROWS][outputs][BYTES]: lines that the first pass made */
};

static inline int32_t level(int32_t sum)
{
    sum >>= BITS;
    sum = sum > 0 ? sum : 0;
    return sum < 255 ? sum : 255;
}

/* The weighted sums of WIDE numbers and those `stride` after them, cut to 8 bits. */
static inline __attribute__((always_inline)) void weigh(const int32_t *from, Py_ssize_t stride,
                                                        const int32_t *coefs, Py_ssize_t taps, int32_t *levels)
{
    for (int i = 0; i < WIDE; i++)
        levels[i] = HALF;
    for (Py_ssize_t tap = 0; tap < taps; tap++, from += stride)
        for (int i = 0; i < WIDE; i++)
            levels[i] += from[i] * coefs[tap];
    for (int i = 0; i < WIDE; i++)
        levels[i] = level(levels[i]);
}

/* The first pass for `rows` rows, at most ROWS: out[row][x] for all x.

The rows are laid side by side first, so that neighbours in memory get the same coefficient; that is what
vector instructions want. */
static inline __attribute__((always_inline)) void across_rows(const uint8_t *pixels, Py_ssize_t width,
                                                              const int step, const int rows,
                                                              const struct axis axis, const struct work work,
                                                              int32_t *out)
{
    const Py_ssize_t first = axis.start[0], last = axis.start[axis.size - 1] + axis.taps - 1;
    uint8_t *beside = work.beside;
    for (Py_ssize_t x = first; x < last; x++, beside += WIDE)
        for (int row = 0; row < rows; row++)
            memcpy(beside + row * BYTES, pixels + (row * width + x) * step, MOVED);
    for (int row = 0; row < rows; row++)
        memcpy(beside + row * BYTES, pixels + (row * width + last) * step, BYTES);
    for (Py_ssize_t i = 0; i < (last + 1 - first) * WIDE; i++)
        work.wide[i] = work.beside[i];
    for (Py_ssize_t x = 0; x < axis.size; x++) {
        int32_t levels[WIDE];
        weigh(work.wide + (axis.start[x] - first) * WIDE, WIDE, axis.coefs + x * axis.taps, axis.taps, levels);
        for (int row = 0; row < rows; row++)
            memcpy(out + (row * axis.size + x) * BYTES, levels + row * BYTES, BYTES * sizeof *out);
    }
}

FOR_EVERY_CPU
static void across(const struct picture picture, Py_ssize_t row, int rows, const struct axis axis,
                   const struct work work, int32_t *out)
{
    const int step = (int)picture.step;
    const uint8_t *pixels = picture.pixels + row * picture.width * step;
    if (rows == ROWS && step == BYTES) /* with its loops unrolled */
        across_rows(pixels, picture.width, BYTES, ROWS, axis, work, out);
    else
        across_rows(pixels, picture.width, step, rows, axis, work, out);
}

/* The second pass: one line of `length` numbers out of as many lines from `from` on as there are taps. */
FOR_EVERY_CPU
static void down(const int32_t *from, const int32_t *coefs, Py_ssize_t taps, Py_ssize_t length, uint8_t *out)
{
    Py_ssize_t x = 0;
    for (; x + WIDE <= length; x += WIDE) {
        int32_t levels[WIDE];
        weigh(from + x, length, coefs, taps, levels);
        for (int i = 0; i < WIDE; i++)
            out[x + i] = (uint8_t)levels[i];
    }
    for (; x < length; x++) {
        int32_t sum = HALF;
        for (Py_ssize_t tap = 0; tap < taps; tap++)
            sum += from[tap * length + x] * coefs[tap];
        out[x] = (uint8_t)level(sum);
    }
}

/* Both passes, line by line. */
static void resize(const struct picture picture, const struct axis x, const struct axis y,
                   const struct work work, uint8_t *out)
{
    const Py_ssize_t length = x.size * BYTES, end = y.start[y.size - 1] + y.taps;
    Py_ssize_t held = y.start[0], made = held; /* rows of the picture whose lines are in `between` */
    for (Py_ssize_t line = 0; line < y.size; line++, out += length) {
        const Py_ssize_t first = y.start[line];
        if (first + y.taps > made) {
            if (first < made)
                memmove(work.between, work.between + (first - held) * length,
                        (made - first) * length * sizeof *work.between);
            else
                made = first;
            held = first;
        }
        while (first + y.taps > made) {
            const int rows = end - made < ROWS ? (int)(end - made) : ROWS;
            across(picture, made, rows, x, work, work.between + (made - held) * length);
            made += rows;
        }
        down(work.between + (first - held) * length, y.coefs + line * y.taps, y.taps, length, out);
    }
}

/* Find the pixels behind an "arrow_array" capsule of a Pillow picture of mode RGB; -1 with an exception set. */
static int from_arrow(struct picture *picture, PyObject *capsule)
{
    const Py_ssize_t length = picture->width * picture->height;
    const struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array == NULL)
        return -1;
    const struct ArrowArray *values =
        array->release != NULL && array->n_children == 1 ? array->children[0] : NULL;
    if (array->length != length || array->offset != 0 || values == NULL || values->n_buffers != 2 ||
        values->length != length * ARROW_BYTES || values->offset != 0 || values->buffers[1] == NULL) {
        PyErr_SetString(PyExc_ValueError, "not the array of a picture of mode RGB and this size");
        return -1;
    }
    picture->pixels = values->buffers[1];
    picture->step = ARROW_BYTES;
    return 0;
}

/* Find the pixels in a buffer; -1 with an exception set. */
static int from_buffer(struct picture *picture, const Py_buffer *buffer)
{
    if (buffer->len != picture->width * picture->height * BYTES) {
        PyErr_SetString(PyExc_ValueError, "not the bytes of a picture of mode RGB and this size");
        return -1;
    }
    picture->pixels = buffer->buf;
    picture->step = BYTES;
    return 0;
}

/* Fill `axis` from buffers of int32; -1 with an exception set unless all of it lies within `side` inputs. */
static int checked(struct axis *axis, const Py_buffer *start, const Py_buffer *coefs, Py_ssize_t side)
{
    axis->start = start->buf;
    axis->coefs = coefs->buf;
    axis->size = start->len / ITEM;
    axis->taps = axis->size > 0 ? coefs->len / ITEM / axis->size : 0;
    int fits = axis->taps > 0 && axis->size <= MOST_SIDE && start->len == axis->size * ITEM &&
               coefs->len == axis->size * axis->taps * ITEM && axis->start[0] >= 0 &&
               axis->start[axis->size - 1] <= side - axis->taps;
    for (Py_ssize_t i = 1; fits && i < axis->size; i++)
        fits = axis->start[i - 1] <= axis->start[i];
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "starts must ascend within the picture, with coefficients for each");
    return fits ? 0 : -1;
}

/* The resized picture as bytes; NULL with an exception set. */
static PyObject *resized(const struct picture picture, const struct axis x, const struct axis y)
{
    const size_t columns = (size_t)(x.start[x.size - 1] + x.taps - x.start[0]);
    PyObject *result = PyBytes_FromStringAndSize(NULL, y.size * x.size * BYTES);
    struct work work;
    work.beside = PyMem_RawCalloc(columns, WIDE); /* the last rows may not fill it */
    work.wide = PyMem_RawMalloc(columns * WIDE * sizeof *work.wide);
    work.between = PyMem_RawMalloc((size_t)(y.taps + ROWS) * x.size * BYTES * sizeof *work.between);
    if (result != NULL && work.beside != NULL && work.wide != NULL && work.between != NULL) {
        uint8_t *out = (uint8_t *)PyBytes_AS_STRING(result);
        Py_BEGIN_ALLOW_THREADS
        resize(picture, x, y, work, out);
        Py_END_ALLOW_THREADS
    } else {
        Py_CLEAR(result);
        PyErr_NoMemory();
    }
    PyMem_RawFree(work.beside);
    PyMem_RawFree(work.wide);
    PyMem_RawFree(work.between);
    return result;
}

PyDoc_STRVAR(convolve_doc,
             "convolve(pixels, width, height, x_start, x_coefs, y_start, y_coefs)\n--\n\n"
             "RGB bytes [len(y_start), len(x_start), 3] of a picture; see resample.py.");

static PyObject *convolve(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *pixels, *result = NULL;
    struct picture picture;
    Py_buffer buffer = {0}, given[4];
    struct axis x, y;
    if (!PyArg_ParseTuple(args, "Onny*y*y*y*", &pixels, &picture.width, &picture.height, &given[0], &given[1],
                          &given[2], &given[3]))
        return NULL;
    if (picture.width < 1 || picture.height < 1 || picture.width > MOST_SIDE || picture.height > MOST_SIDE)
        PyErr_SetString(PyExc_ValueError, "no picture has this size");
    else if ((PyCapsule_CheckExact(pixels) ? from_arrow(&picture, pixels)
              : PyObject_GetBuffer(pixels, &buffer, PyBUF_SIMPLE) ? -1
                                                                  : from_buffer(&picture, &buffer)) == 0 &&
             checked(&x, &given[0], &given[1], picture.width) == 0 &&
             checked(&y, &given[2], &given[3], picture.height) == 0)
        result = resized(picture, x, y);
    PyBuffer_Release(&buffer); /* does nothing if there is none */
    for (int i = 0; i < 4; i++)
        PyBuffer_Release(&given[i]);
    return result;
}

static PyMethodDef methods[] = {{"convolve", convolve, METH_VARARGS, convolve_doc}, {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED}, /* nothing here is shared between calls */
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hailo_clip.api._resample",
    .m_doc = "The loops of resample.py.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__resample(void)
{
    return PyModuleDef_Init(&definition);
}
