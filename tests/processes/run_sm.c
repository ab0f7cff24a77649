/* Answers one request from a SavedModel through TensorFlow's C interface, as a server's loader does.

   run_sm MODEL_DIR N_IN [TENSOR:INDEX DTYPE RANK DIMS... FILE]... N_OUT [TENSOR:INDEX FILE]...

   Files hold raw little-endian numbers; DTYPE is that of TF_DataType. With SERVING_XLA_DEFAULT in
   the environment XLA is switched off first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

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
    size_t size = TF_DataTypeSize(dtype);
    for (int d = 0; d < rank; d++) {
      dims[d] = atoll(argv[at++]);
      size *= dims[d];
    }
    inputs[i] = TF_AllocateTensor(dtype, dims, rank, size);
    FILE *file = fopen(argv[at++], "rb");
    if (!file || fread(TF_TensorData(inputs[i]), 1, size, file) != size) {
      fprintf(stderr, "cannot read %s\n", argv[at - 1]);
      return 1;
    }
    fclose(file);
  }
  int n_out = atoi(argv[at++]), first = at;
  for (int i = 0; i < n_out; i++, at += 2) fetches[i] = output(graph, argv[at]);
  TF_SessionRun(session, NULL, feeds, inputs, n_in, fetches, outputs, n_out, NULL, 0, NULL, status);
  must(status, "run");
  for (int i = 0; i < n_out; i++) {
    FILE *file = fopen(argv[first + 2 * i + 1], "wb");
    fwrite(TF_TensorData(outputs[i]), 1, TF_TensorByteSize(outputs[i]), file);
    fclose(file);
  }
  return 0;
}
