/* A PKCS#11 module that stands in front of a real one and fails where a test says
 * so. MODULE is the real one. FOLDER holds what to do:
 *
 *   log       the functions called, a line each
 *   slow      milliseconds that each of them takes; it ends with the file
 *   flags     bits that C_GetTokenInfo adds
 *   sessions  the most that it says it allows
 *   C_Name    "RV N": the next N calls return RV, all where N is negative
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CK_PTR *
#define CK_DECLARE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION_POINTER(type, name) type(*name)
#define CK_CALLBACK_FUNCTION(type, name) type(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include "pkcs11.h"

static CK_FUNCTION_LIST_PTR real;
static CK_FUNCTION_LIST list;

static int number(const char *name, const char *format, void *a, void *b) {
  char path[1024];
  snprintf(path, sizeof path, FOLDER "/%s", name);
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  int n = fscanf(f, format, a, b);
  fclose(f);
  return n;
}

static void slow(void) {
  const struct timespec step = {0, 10 * 1000 * 1000};
  long limit, waited;
  for (waited = 0; number("slow", "%ld%ld", &limit, &waited) >= 1 && waited < limit; waited += 10) nanosleep(&step, NULL);
}

static CK_RV fault(const char *name) {
  char path[1024];
  FILE *f = fopen(FOLDER "/log", "a");
  if (f) {
    fprintf(f, "%s\n", name);
    fclose(f);
  }
  slow();
  unsigned long rv;
  long n;
  if (number(name, "%lx%ld", &rv, &n) != 2 || n == 0) return CKR_OK;
  if (n > 0) {
    snprintf(path, sizeof path, FOLDER "/%s", name);
    f = fopen(path, "w");
    if (f) {
      fprintf(f, "%lx %ld", rv, n - 1);
      fclose(f);
    }
  }
  return rv;
}

#define FAULT(name, parameters, arguments)                \
  static CK_RV my_##name parameters {                     \
    CK_RV rv = fault(#name);                              \
    return rv != CKR_OK ? rv : real->name arguments;      \
  }

FAULT(C_Initialize, (CK_VOID_PTR a), (a))
FAULT(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID_PTR l, CK_ULONG_PTR n), (present, l, n))
FAULT(C_OpenSession, (CK_SLOT_ID s, CK_FLAGS f, CK_VOID_PTR a, CK_NOTIFY n, CK_SESSION_HANDLE_PTR h), (s, f, a, n, h))
FAULT(C_Login, (CK_SESSION_HANDLE h, CK_USER_TYPE u, CK_UTF8CHAR_PTR p, CK_ULONG n), (h, u, p, n))
FAULT(C_EncryptInit, (CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k), (h, m, k))
FAULT(C_DecryptInit, (CK_SESSION_HANDLE h, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k), (h, m, k))

/* The real one has its turn, since its operation must end; asked for a size, it does not. */
#define FAULT_OF_OPERATION(name)                                                                          \
  static CK_RV my_##name(CK_SESSION_HANDLE h, CK_BYTE_PTR d, CK_ULONG n, CK_BYTE_PTR e, CK_ULONG_PTR m) { \
    if (!e) return real->name(h, d, n, e, m);                                                             \
    CK_RV rv = fault(#name), own = real->name(h, d, n, e, m);                                             \
    return rv != CKR_OK ? rv : own;                                                                       \
  }

FAULT_OF_OPERATION(C_Encrypt)
FAULT_OF_OPERATION(C_Decrypt)

static CK_RV my_C_GetTokenInfo(CK_SLOT_ID s, CK_TOKEN_INFO_PTR info) {
  CK_RV rv = real->C_GetTokenInfo(s, info);
  unsigned long flags, none;
  if (rv == CKR_OK && number("flags", "%lx%lx", &flags, &none) >= 1) info->flags |= flags;
  long sessions;
  if (rv == CKR_OK && number("sessions", "%ld%lx", &sessions, &none) >= 1) info->ulMaxSessionCount = sessions;
  return rv;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out) {
  void *module = dlopen(MODULE, RTLD_NOW);
  if (!module) return CKR_GENERAL_ERROR;
  CK_C_GetFunctionList get = (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList");
  if (!get || get(&real) != CKR_OK) return CKR_GENERAL_ERROR;
  list = *real;
  list.C_Initialize = my_C_Initialize;
  list.C_GetSlotList = my_C_GetSlotList;
  list.C_GetTokenInfo = my_C_GetTokenInfo;
  list.C_OpenSession = my_C_OpenSession;
  list.C_Login = my_C_Login;
  list.C_EncryptInit = my_C_EncryptInit;
  list.C_Encrypt = my_C_Encrypt;
  list.C_DecryptInit = my_C_DecryptInit;
  list.C_Decrypt = my_C_Decrypt;
  *out = &list;
  return CKR_OK;
}
