package policy

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	internalast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Bounds of what [New] accepts.
const (
	// MaxText bounds all documents together, in bytes.
	MaxText = 256 << 10
	// MaxPolicy bounds one policy, in bytes without comments: Cedar's parser and
	// type checker recurse on what is in it, some of it in quadratic time.
	MaxPolicy = 8 << 10
	// maxDepth bounds the nesting of brackets in a policy.
	maxDepth = 64
	// maxErrors bounds the errors reported at once.
	maxErrors = 20
)

// Document is a file of Cedar policies.
type Document struct {
	Name string // for errors
	Text []byte
}

//go:embed shipped/*.cedar
var shippedFiles embed.FS

// Shipped returns the policies that come with the product.
func Shipped() ([]Document, error) {
	entries, err := shippedFiles.ReadDir("shipped")
	if err != nil {
		return nil, fmt.Errorf("reading the shipped policies: %w", err)
	}
	var documents []Document
	for _, entry := range entries {
		text, err := shippedFiles.ReadFile("shipped/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("reading the shipped policies: %w", err)
		}
		documents = append(documents, Document{entry.Name(), text})
	}
	return documents, nil
}

// New makes an engine of all policies in the documents. Its error lists, a line
// each, what is wrong, with file and line; and that there is no policy at all,
// since then nothing would be released.
func New(documents ...Document) (*Engine, error) {
	m, err := loadModel()
	if err != nil {
		return nil, err
	}
	l := loader{model: m, validator: validate.New(m.schema), seen: make(map[string]string)}
	size := 0
	for _, d := range documents {
		if size += len(d.Text); size > MaxText {
			return nil, fmt.Errorf("loading policies: %s: more than %d bytes in all files", d.Name, MaxText)
		}
		l.load(d)
	}
	if len(l.policies) == 0 && len(l.errs) == 0 {
		l.errs = append(l.errs, errors.New("no policy in any file: nothing would be permitted"))
	}
	if err := l.err(); err != nil {
		return nil, fmt.Errorf("loading policies: %w", err)
	}
	slices.SortFunc(l.policies, func(a, b namedPolicy) int { return strings.Compare(string(a.id), string(b.id)) })
	return &Engine{m, l.policies}, nil
}

// loader collects policies and what is wrong with them.
type loader struct {
	model     *model
	validator *validate.Validator
	policies  policyList
	seen      map[string]string // id → where
	errs      []error
}

func (l *loader) err() error {
	if more := len(l.errs) - maxErrors; more > 0 {
		l.errs = append(l.errs[:maxErrors], fmt.Errorf("and %d more", more))
	}
	return errors.Join(l.errs...)
}

func (l *loader) load(d Document) {
	if err := checkShape(d.Text); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s%w", d.Name, err))
		return
	}
	list, err := cedar.NewPolicyListFromBytes(d.Name, d.Text)
	if err != nil {
		l.errs = append(l.errs, parseError(d.Name, err))
		return
	}
	for _, p := range list {
		l.add(d.Name, p)
	}
}

// parseError puts the document's name where cedar-go has a placeholder.
func parseError(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "parser error: ")
	return errors.New(strings.ReplaceAll(text, "<input>", name))
}

func (l *loader) add(name string, p *cedar.Policy) {
	where := fmt.Sprintf("%s:%d", name, p.Position().Line)
	id := string(p.Annotations()["id"])
	if !isID(id) {
		l.errs = append(l.errs, fmt.Errorf("%s: the policy needs an id: @id(\"…\") of 1 to 64 a-z, 0-9 and -", where))
		return
	}
	if first, ok := l.seen[id]; ok {
		l.errs = append(l.errs, fmt.Errorf("%s: policy %s: the id is taken by the one at %s", where, id, first))
		return
	}
	l.seen[id] = where
	tree := (*internalast.Policy)(p.AST())
	for _, err := range []error{l.validator.Policy("", tree), l.model.checkEnums(tree)} {
		if err != nil {
			text := strings.ReplaceAll(err.Error(), "\n", "; ")
			l.errs = append(l.errs, fmt.Errorf("%s: policy %s: %s", where, id, text))
		}
	}
	l.policies = append(l.policies, namedPolicy{cedar.PolicyID(id), p})
}

func isID(id string) bool {
	return id != "" && len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
