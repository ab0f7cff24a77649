/* Answers one request from a SavedModel through TensorFlow's C interface, as a server's loader does.

   run_sm MODEL_DIR N_IN [TENSOR:INDEX DTYPE RANK DIMS... FILE]... N_OUT [TENSOR:INDEX FILE]...

   Files hold raw little-endian numbers, or strings one after the other, the 4 bytes of its length
   before each; DTYPE is that of TF_DataType. With SERVING_XLA_DEFAULT in the environment XLA is
   switched off first. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

extern void _ZN10tensorflow21DisableXlaCompilationEv(void);

static void must(TF_Status *status, const char *what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

static TF_Output output(TF_Graph *graph, const char *tensor) {
  char name[1000];
  strncpy(name, tensor, sizeof name - 1);
  name[sizeof name - 1] = 0;
  char *colon = strrchr(name, ':');
  *colon = 0;
  TF_Output found = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!found.oper) {
    fprintf(stderr, "no operation %s\n", name);
    exit(1);
  }
  return found;
}

static void need(int good, const char *file) {
  if (good) return;
  fprintf(stderr, "cannot read or write %s\n", file);
  exit(1);
}

static void read_strings(TF_TString *strings, size_t count, FILE *file, const char *name) {
  for (size_t i = 0; i < count; i++) {
    uint32_t length;
    char text[10000];
    need(fread(&length, sizeof length, 1, file) == 1 && length <= sizeof text, name);
    need(fread(text, 1, length, file) == length, name);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], text, length);
  }
}

static void write_strings(const TF_TString *strings, size_t count, FILE *file, const char *name) {
  for (size_t i = 0; i < count; i++) {
    uint32_t length = TF_StringGetSize(&strings[i]);
    need(fwrite(&length, sizeof length, 1, file) == 1, name);
    need(fwrite(TF_StringGetDataPointer(&strings[i]), 1, length, file) == length, name);
  }
}

int main(int argc, char **argv) {
  if (getenv("SERVING_XLA_DEFAULT")) _ZN10tensorflow21DisableXlaCompilationEv();
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  must(status, "load");

  int at = 2, n_in = atoi(argv[at++]);
  TF_Output feeds[64], fetches[64];
  TF_Tensor *inputs[64], *outputs[64];
  for (int i = 0; i < n_in; i++) {
    feeds[i] = output(graph, argv[at++]);
    TF_DataType dtype = (TF_DataType)atoi(argv[at++]);
    int rank = atoi(argv[at++]);
    int64_t dims[8];
    size_t width = dtype == TF_STRING ? sizeof(TF_TString) : TF_DataTypeSize(dtype), size = width;
    for (int d = 0; d < rank; d++) {
      dims[d] = atoll(argv[at++]);
      size *= dims[d];
    }
    inputs[i] = TF_AllocateTensor(dtype, dims, rank, size);
    const char *name = argv[at++];
    FILE *file = fopen(name, "rb");
    need(file != NULL, name);
    void *data = TF_TensorData(inputs[i]);
    if (dtype == TF_STRING)
      read_strings(data, size / width, file, name);
    else
      need(fread(data, 1, size, file) == size, name);
    fclose(file);
  }
  int n_out = atoi(argv[at++]), first = at;
  for (int i = 0; i < n_out; i++, at += 2) fetches[i] = output(graph, argv[at]);
  TF_SessionRun(session, NULL, feeds, inputs, n_in, fetches, outputs, n_out, NULL, 0, NULL, status);
  must(status, "run");
  for (int i = 0; i < n_out; i++) {
    const char *name = argv[first + 2 * i + 1];
    FILE *file = fopen(name, "wb");
    need(file != NULL, name);
    const void *data = TF_TensorData(outputs[i]);
    size_t size = TF_TensorByteSize(outputs[i]);
    if (TF_TensorType(outputs[i]) == TF_STRING)
      write_strings(data, size / sizeof(TF_TString), file, name);
    else
      need(fwrite(data, 1, size, file) == size, name);
    fclose(file);
  }
  return 0;
}
