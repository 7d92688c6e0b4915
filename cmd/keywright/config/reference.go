package config

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

//go:embed settings.go
var settingsSource string

// Reference returns a configuration file that names every key with its default,
// each under its comment.
func Reference() (string, error) {
	comments, err := readComments()
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("# Keywright's configuration. Every key is shown with its default.\n")
	out.WriteString("# keywright config check FILE checks a file; keywright server --config FILE uses it.\n")
	value := reflect.ValueOf(Default())
	for i := range value.NumField() {
		section := value.Type().Field(i)
		fmt.Fprintf(&out, "\n%s[%s]\n", comments[section.Type.Name()], section.Tag.Get("toml"))
		if err := writeSection(&out, section.Type, value.Field(i), comments); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

func writeSection(out *strings.Builder, t reflect.Type, v reflect.Value, comments map[string]string) error {
	for i := range t.NumField() {
		field := t.Field(i)
		key := field.Tag.Get("toml")
		line, err := encodeValue(key, v.Field(i))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%s%s", comments[t.Name()+"."+field.Name], line)
	}
	return nil
}

func encodeValue(key string, v reflect.Value) (string, error) {
	value := v.Interface()
	if v.Kind() == reflect.Slice && v.IsNil() {
		value = []string{}
	}
	text, err := toml.Marshal(map[string]any{key: value})
	if err != nil {
		return "", fmt.Errorf("encoding the default of %s: %w", key, err)
	}
	return string(text), nil
}

// readComments returns the comments of the source, as TOML comments: of types
// by name, of fields by Type.Field.
func readComments() (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "settings.go", settingsSource, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the manual: %w", err)
	}
	comments := make(map[string]string)
	for _, declaration := range file.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok || general.Tok != token.TYPE {
			continue
		}
		for _, spec := range general.Specs {
			if t, ok := spec.(*ast.TypeSpec); ok {
				addComments(comments, t, general.Doc)
			}
		}
	}
	return comments, nil
}

func addComments(comments map[string]string, t *ast.TypeSpec, doc *ast.CommentGroup) {
	// Go's convention begins with the type's name; here a section has its own.
	text := strings.TrimPrefix(doc.Text(), t.Name.Name+" ")
	comments[t.Name.Name] = asComment(strings.ToUpper(text[:1]) + text[1:])
	structure, ok := t.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range structure.Fields.List {
		for _, name := range field.Names {
			comments[t.Name.Name+"."+name.Name] = asComment(field.Doc.Text())
		}
	}
}

func asComment(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString("# " + line)
	}
	return out.String()
}
