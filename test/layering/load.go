package layering

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
)

// tags are the build tags under which the tree holds code.
const tags = "integration,vm,full"

// Load reads the import graph of the module in dir from the go tool: of its own
// packages and of all that they pull in. What is built with cgo or without, with
// the tests' tags or without, is laid together.
func Load(ctx context.Context, dir string) (Graph, error) {
	g := Graph{}
	for _, build := range []struct{ cgo, tags string }{{"1", tags}, {"0", ""}} {
		out, err := goList(ctx, dir, build.cgo, build.tags)
		if err != nil {
			return nil, err
		}
		if err := g.add(out); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func goList(ctx context.Context, dir, cgo, tags string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-tags="+tags,
		"-json=ImportPath,Imports,CgoFiles,Standard", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages in %s: %w\n%s", dir, err, stderr.Bytes())
	}
	return out, nil
}

// add lays the packages of go list's output over those already in the graph.
func (g Graph) add(list []byte) error {
	dec := json.NewDecoder(bytes.NewReader(list))
	for {
		var p struct {
			ImportPath string
			Imports    []string
			CgoFiles   []string
			Standard   bool
		}
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading go list's output: %w", err)
		}
		imports := append(slices.Clone(g[p.ImportPath].Imports), p.Imports...)
		slices.Sort(imports)
		g[p.ImportPath] = Package{
			Imports:  slices.Compact(imports),
			Cgo:      g[p.ImportPath].Cgo || len(p.CgoFiles) > 0,
			Standard: p.Standard,
		}
	}
}
