/* Two passes of a separable resize over the pixels of a Pillow picture, with vector instructions.

Pillow's own resize computes one pixel at a time. This one computes the same sums, bit for bit, on rows of
numbers that the compiler turns into SSE4.1, AVX2 or NEON instructions: three times as fast with GCC and glibc.
What each output pixel is made of (start, coefficients) is decided in resample.py, where it can be read; here
is only the loop.

The picture is not copied: it comes as Arrow's C data interface, which is a stable binary interface
(https://arrow.apache.org/docs/format/CDataInterface.html). The interpreter's lock is released meanwhile. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Coefficients are integers, 1 << BITS standing for 1; see resample.py. */
#define BITS 22
#define HALF (1 << (BITS - 1))

#define IN_BYTES 4  /* of a pixel of the picture: R, G, B and one that is not used */
#define OUT_BYTES 3 /* of a pixel of the result */

#define ROWS 8   /* of the picture that are resized at once, side by side in memory */
#define WIDE 32  /* columns that are resized at once: ROWS * IN_BYTES, and as many bytes in the second pass */
#define MOST_SIDE (1 << 20) /* products of two sides, bytes and all, are far from overflowing */
#define ITEM ((Py_ssize_t)sizeof(int32_t))

/* GCC makes one version for each of these and the right one is chosen when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EVERY_CPU __attribute__((target_clones("avx2", "sse4.1", "default")))
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

/* What each of `size` outputs is made of: inputs start[i] to start[i] + taps, times coefs[i * taps ...]. */
struct axis {
    const int32_t *start, *coefs;
    Py_ssize_t size, taps;
};

static inline uint8_t level(int32_t sum)
{
    sum >>= BITS;
    sum = sum > 0 ? sum : 0;
    return (uint8_t)(sum < 255 ? sum : 255);
}

/* The first pass for `rows` rows, at most ROWS: out[row][x] for all x, OUT_BYTES a pixel.

The rows are laid side by side first (`beside`, [columns][ROWS] pixels), so that neighbours in memory get the
same coefficient; that is what vector instructions want. */
static inline __attribute__((always_inline)) void across_rows(const uint8_t *picture, Py_ssize_t width,
                                                              const int rows, const struct axis axis,
                                                              uint32_t *beside, uint8_t *out)
{
    const Py_ssize_t first = axis.start[0], end = axis.start[axis.size - 1] + axis.taps;
    for (Py_ssize_t x = first; x < end; x++)
        for (int row = 0; row < rows; row++)
            memcpy(&beside[(x - first) * ROWS + row], picture + (row * width + x) * IN_BYTES, IN_BYTES);
    for (Py_ssize_t x = 0; x < axis.size; x++) {
        const uint8_t *from = (const uint8_t *)&beside[(axis.start[x] - first) * ROWS];
        const int32_t *coefs = axis.coefs + x * axis.taps;
        int32_t sums[WIDE];
        uint8_t levels[WIDE];
        for (int i = 0; i < WIDE; i++)
            sums[i] = HALF;
        for (Py_ssize_t tap = 0; tap < axis.taps; tap++, from += WIDE)
            for (int i = 0; i < WIDE; i++)
                sums[i] += from[i] * coefs[tap];
        for (int i = 0; i < WIDE; i++)
            levels[i] = level(sums[i]);
        for (int row = 0; row < rows; row++)
            memcpy(out + (row * axis.size + x) * OUT_BYTES, levels + row * IN_BYTES, OUT_BYTES);
    }
}

FOR_EVERY_CPU
static void across(const uint8_t *picture, Py_ssize_t width, int rows, const struct axis axis,
                   uint32_t *beside, uint8_t *out)
{
    if (rows == ROWS) /* with its loops unrolled */
        across_rows(picture, width, ROWS, axis, beside, out);
    else
        across_rows(picture, width, rows, axis, beside, out);
}

/* The second pass: one line of `bytes` bytes out of as many lines from `from` on as there are taps. */
FOR_EVERY_CPU
static void down(const uint8_t *from, const int32_t *coefs, Py_ssize_t taps, Py_ssize_t bytes, uint8_t *out)
{
    Py_ssize_t x = 0;
    for (; x + WIDE <= bytes; x += WIDE) {
        int32_t sums[WIDE];
        for (int i = 0; i < WIDE; i++)
            sums[i] = HALF;
        for (Py_ssize_t tap = 0; tap < taps; tap++)
            for (int i = 0; i < WIDE; i++)
                sums[i] += from[tap * bytes + x + i] * coefs[tap];
        for (int i = 0; i < WIDE; i++)
            out[x + i] = level(sums[i]);
    }
    for (; x < bytes; x++) {
        int32_t sum = HALF;
        for (Py_ssize_t tap = 0; tap < taps; tap++)
            sum += from[tap * bytes + x] * coefs[tap];
        out[x] = level(sum);
    }
}

/* Both passes, line by line: `between` holds the few lines of the first pass that the second needs now. */
static void resize(const uint8_t *picture, Py_ssize_t width, const struct axis x, const struct axis y,
                   uint32_t *beside, uint8_t *between, uint8_t *out)
{
    const Py_ssize_t bytes = x.size * OUT_BYTES, end = y.start[y.size - 1] + y.taps;
    Py_ssize_t held = y.start[0], made = held; /* rows of the picture whose lines are in `between` */
    for (Py_ssize_t line = 0; line < y.size; line++, out += bytes) {
        const Py_ssize_t first = y.start[line];
        if (first + y.taps > made) {
            if (first < made)
                memmove(between, between + (first - held) * bytes, (made - first) * bytes);
            else
                made = first;
            held = first;
        }
        while (first + y.taps > made) {
            const int rows = end - made < ROWS ? (int)(end - made) : ROWS;
            across(picture + made * width * IN_BYTES, width, rows, x, beside, between + (made - held) * bytes);
            made += rows;
        }
        down(between + (first - held) * bytes, y.coefs + line * y.taps, y.taps, bytes, out);
    }
}

/* The pixels behind an "arrow_array" capsule of a Pillow picture of mode RGB; NULL with an exception set. */
static const uint8_t *pixels_of(PyObject *capsule, Py_ssize_t width, Py_ssize_t height)
{
    const struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array == NULL)
        return NULL;
    const struct ArrowArray *values =
        array->release != NULL && array->n_children == 1 ? array->children[0] : NULL;
    if (array->length != width * height || array->offset != 0 || values == NULL || values->n_buffers != 2 ||
        values->length != width * height * IN_BYTES || values->offset != 0 || values->buffers[1] == NULL) {
        PyErr_SetString(PyExc_ValueError, "not the array of a picture of mode RGB and this size");
        return NULL;
    }
    return values->buffers[1];
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
static PyObject *resized(const uint8_t *picture, Py_ssize_t width, const struct axis x, const struct axis y)
{
    const size_t columns = (size_t)(x.start[x.size - 1] + x.taps - x.start[0]);
    PyObject *result = PyBytes_FromStringAndSize(NULL, y.size * x.size * OUT_BYTES);
    uint32_t *beside = PyMem_RawCalloc(columns, ROWS * sizeof *beside); /* the last rows may not fill it */
    uint8_t *between = PyMem_RawMalloc((size_t)(y.taps + ROWS) * x.size * OUT_BYTES);
    if (result != NULL && beside != NULL && between != NULL) {
        uint8_t *out = (uint8_t *)PyBytes_AS_STRING(result);
        Py_BEGIN_ALLOW_THREADS
        resize(picture, width, x, y, beside, between, out);
        Py_END_ALLOW_THREADS
    } else {
        Py_CLEAR(result);
        PyErr_NoMemory();
    }
    PyMem_RawFree(beside);
    PyMem_RawFree(between);
    return result;
}

PyDoc_STRVAR(convolve_doc,
             "convolve(pixels, width, height, x_start, x_coefs, y_start, y_coefs)\n--\n\n"
             "RGB bytes [len(y_start), len(x_start), 3] of a picture; see resample.py.");

static PyObject *convolve(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *capsule, *result = NULL;
    Py_ssize_t width, height;
    Py_buffer given[4];
    struct axis x, y;
    if (!PyArg_ParseTuple(args, "Onny*y*y*y*", &capsule, &width, &height, &given[0], &given[1], &given[2],
                          &given[3]))
        return NULL;
    if (width < 1 || height < 1 || width > MOST_SIDE || height > MOST_SIDE) {
        PyErr_SetString(PyExc_ValueError, "no picture has this size");
    } else {
        const uint8_t *picture = pixels_of(capsule, width, height);
        if (picture != NULL && checked(&x, &given[0], &given[1], width) == 0 &&
            checked(&y, &given[2], &given[3], height) == 0)
            result = resized(picture, width, x, y);
    }
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
