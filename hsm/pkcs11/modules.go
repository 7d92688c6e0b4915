//go:build cgo

package pkcs11

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"keywright.dev/kms/root"
)

// Modules are the PKCS#11 modules that the process has loaded. A module is
// initialized once for all roots that use it, and finalized when the last of their
// connections ends: many modules look for tokens only then. It stays loaded, since
// not every module survives being unloaded. The zero value is ready.
type Modules struct {
	mu     sync.Mutex
	loaded map[string]*module
}

type module struct {
	*p11.Ctx
	users int
}

// checkModule finds a wrong path before anything else does.
func checkModule(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is no regular file")
	}
	if err != nil {
		return fmt.Errorf("loading the PKCS#11 module %s: %w: %w; install it, or mend module-path", path, root.ErrRefused, err)
	}
	return nil
}

// use returns the module at path, initialized, until it is given to done.
func (m *Modules) use(path string) (*module, error) {
	if err := checkModule(path); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mod, err := m.load(path)
	if err != nil {
		return nil, err
	}
	if mod.users == 0 {
		if err := mod.Initialize(); err != nil && !isCode(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			return nil, fmt.Errorf("initializing the PKCS#11 module %s: C_Initialize: %w", path, err)
		}
	}
	mod.users++
	return mod, nil
}

func (m *Modules) load(path string) (*module, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("loading the PKCS#11 module %s: %w: %w", path, root.ErrRefused, err)
	}
	if mod := m.loaded[real]; mod != nil {
		return mod, nil
	}
	ctx := p11.New(real)
	if ctx == nil {
		return nil, fmt.Errorf("loading the PKCS#11 module %s: %w: it is no PKCS#11 module for this machine, or a library that it needs is missing (see ldd)", path, root.ErrRefused)
	}
	if m.loaded == nil {
		m.loaded = map[string]*module{}
	}
	mod := &module{Ctx: ctx}
	m.loaded[real] = mod
	return mod, nil
}

func (m *Modules) done(mod *module) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mod.users--
	if mod.users == 0 {
		// An error leaves it initialized, which the next use accepts.
		_ = mod.Finalize()
	}
}
