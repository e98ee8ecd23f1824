package devices

import (
	"crypto/ed25519"
	"fmt"
	"net/http"

	"freshet/internal/api"
	"freshet/internal/authz"
	"freshet/internal/identity"
	"freshet/internal/web"
)

// LANPass answers POST /v1/lanpass: a pass for a key of the caller's, in the name and group of
// the certificate that it shows. It is a call of its own and no part of enrolment or renewal:
// a renewal is made without a certificate, and its request may be sent again by anyone who saw
// it, who could then speak in the device's name.
func (s *Service) LANPass(w http.ResponseWriter, r *http.Request) {
	var q api.LANPassRequest
	if err := web.ReadJSON(w, r, maxBody, &q); err != nil {
		web.Fail(w, r, err)
		return
	}
	if len(q.Key) != ed25519.PublicKeySize {
		web.Fail(w, r, badRequest("the LAN key is not good", fmt.Errorf("%d bytes, want the %d of an Ed25519 public key", len(q.Key), ed25519.PublicKeySize)))
		return
	}
	name := authz.From(r.Context()).Name
	pass := identity.Pass{Device: name.Device, Key: [ed25519.PublicKeySize]byte(q.Key), Group: name.Group, Expires: s.Now().Add(identity.PassLife)}
	s.Log.Debug("lan pass", "device", name.Device, "group", name.Group)
	web.WriteJSON(w, api.LANPassReply{Pass: identity.SignPass(s.Key, pass)})
}
