"""Erasure requests, from the letter to the certificate: what is kept of them, and how.

A request passes through *received, matched, unlearned, judged, accepted* (or *escalated* to the
next method, and *unlearned* again), *deployed, purged, certified*; or it is *refused*. All that
is known of it is the ledger: a step is done first, in a way that may be repeated, and recorded
then; so a kill anywhere leaves a ledger from which the next start goes on.

    erasure/                      of the clone, kept out of git
      keys/                       HMAC and signing key (0600), public.pem to be given to auditors
      ledger.jsonl, head.json     one signed record per step, and the end
      requests/0001/              asked.json, matched.json: personal, removed by the purge;
                                  certificate.json, certificate.html
      models/0001.safetensors     what is in production since request 1; former ones are removed
    requests/inbox/               letters that nobody has opened yet
    requests/forgotten.csv        which samples no set may hold any more (tasks/files/forgotten.py)

The ledger names nobody: ids and subjects stand in it as HMAC-SHA256 under a key of this clone. With
the key whoever knows an id can find its requests; without it the ledger says when what was done
with which model and how it was judged, and of whom nobody can tell any more: a request that comes
again is then a new one. Records are chained by SHA-256, each is signed (Ed25519), and so is the
end of the chain. So a record that was changed, left out or cut off is found. An older ledger with
its older signed end is found by the certificates that were given away, and by nothing else.
"""


class ErasureError(RuntimeError):
    """A request, a key, a ledger or a certificate is not what it must be."""
