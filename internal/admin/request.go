package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxBody bounds the body of a request, in bytes.
const maxBody = 512 << 10

// decode reads the one JSON value that a request's body is. A key that is not
// known is an error: what was meant by it would be left undone.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.Decode(&struct{}{}) != io.EOF {
		err = errors.New("more than one JSON value")
	}
	if err != nil {
		return fmt.Errorf("request body: %w", err)
	}
	return nil
}

// absent says that a node does not have what was asked for.
func absent(w http.ResponseWriter, what string) {
	http.Error(w, "this node has no "+what, http.StatusNotImplemented)
}

// badRequest says what is wrong with a call.
func badRequest(w http.ResponseWriter, err error) { http.Error(w, err.Error(), http.StatusBadRequest) }

// answer writes a reply, or why there is none.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	reply(w, v)
}
