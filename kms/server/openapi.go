package server

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"keywright.dev/kms/api"
)

const schemaPrefix = "#/components/schemas/"

// extensionAction names a route's action in the API description.
const extensionAction = "x-keywright-action"

// OpenAPI returns the description of every route of the guest and the operator
// listener, made from the types that serve them (OpenAPI 3.1, JSON).
func (s *Server) OpenAPI() ([]byte, error) {
	// A router of its own: what is described must not change what is served.
	o := newOperators(s)
	description := o.api.OpenAPI()
	description.Info.Description = "Guests speak to the guest listener (TLS 1.3), operators to a unix socket. " +
		"Every error has the form Error. Byte strings are base64, times RFC 3339 in UTC."
	// The description is of the API, which a build does not change.
	description.Info.Version = "1"
	for _, r := range s.guests.routes {
		description.AddOperation(describeGuest(r, description.Components.Schemas))
	}
	correctSchemas(description)
	out, err := json.MarshalIndent(description, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("describing the API: %w", err)
	}
	return append(out, '\n'), nil
}

// correctSchemas takes out what huma says and the service does not do: its form
// of errors, and null for an empty list. Members that are not described are
// refused in requests alone; an answer may have them.
func correctSchemas(description *huma.OpenAPI) {
	schemas := description.Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	strict := make(map[string]bool)
	for _, path := range description.Paths {
		if path.Post != nil && path.Post.RequestBody != nil {
			markReferred(schemas, path.Post.RequestBody.Content["application/json"].Schema, strict)
		}
	}
	for name, schema := range schemas {
		if !strict[name] && schema.AdditionalProperties == false {
			schema.AdditionalProperties = nil
		}
		for _, property := range schema.Properties {
			property.Nullable = property.Nullable && property.Type != huma.TypeArray
		}
	}
}

// markReferred marks the schemas that a schema leads to.
func markReferred(schemas map[string]*huma.Schema, s *huma.Schema, marked map[string]bool) {
	name := strings.TrimPrefix(s.Ref, schemaPrefix)
	if s.Ref != "" && !marked[name] {
		marked[name] = true
		markReferred(schemas, schemas[name], marked)
	}
	for _, property := range s.Properties {
		markReferred(schemas, property, marked)
	}
	if s.Items != nil {
		markReferred(schemas, s.Items, marked)
	}
}

func describeGuest(r guestRoute, schemas huma.Registry) *huma.Operation {
	responses := errorResponses(schemas)
	responses["200"] = &huma.Response{Description: "OK", Content: jsonOf(schemas, r.answer)}
	return &huma.Operation{
		OperationID: operationID(r.Route), Method: r.Method, Path: r.Path, Summary: r.Summary,
		Tags:        []string{string(r.Listener)},
		Extensions:  map[string]any{extensionAction: r.Action},
		RequestBody: &huma.RequestBody{Required: true, Content: jsonOf(schemas, r.request)},
		Responses:   responses,
	}
}

// errorResponses is the one form of every answer that is not a success.
func errorResponses(schemas huma.Registry) map[string]*huma.Response {
	return map[string]*huma.Response{"default": {
		Description: "An error; docs/reference/errors.md lists the codes.",
		Content:     jsonOf(schemas, reflect.TypeFor[api.Error]()),
	}}
}

func jsonOf(schemas huma.Registry, t reflect.Type) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(t, true, t.Name())}}
}

// operationID is the method and the path in words, such as post-v1-boot-release.
func operationID(r Route) string {
	path := strings.NewReplacer("/", "-", "{", "", "}", "").Replace(r.Path)
	return strings.ToLower(r.Method) + path
}
