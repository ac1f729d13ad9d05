// A small client as a front end would write it; `tests/openapi_client.rs` compiles it against the generated `api.d.ts`.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Interview = components["schemas"]["Interview"];

export async function reschedule(baseUrl: string, email: string, password: string): Promise<Interview[]> {
  const api = createClient<paths>({ baseUrl });

  const login = await api.POST("/api/users/login/", { body: { email, password } });
  if (!login.data) throw new Error(`not signed in: ${JSON.stringify(login.error)}`);
  const token: string = login.data.access_token;
  const company: number | null = login.data.company_id;
  api.use({ onRequest: ({ request }) => request.headers.set("Authorization", `Bearer ${token}`) });

  const scheduled = await api.POST("/api/company/google/create-interview/", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { candidate_id: "201", job_id: 21, company_id: company, date: "2030-02-01", time: "14:00", interview_type: "google_meet" },
  });
  if (!scheduled.data) {
    const refusal = scheduled.error;
    if ("needs_google_auth" in refusal) window.location.href = refusal.google_auth_url;
    throw new Error("error" in refusal ? refusal.error : refusal.detail);
  }
  const link: string | null = scheduled.data.meeting_link;
  const mailed: boolean = scheduled.data.emails_sent.candidate;
  console.log(link, mailed, scheduled.data.warnings.join("\n"), scheduled.response.headers.get("Idempotency-Replayed"));

  const path = { id: scheduled.data.interview_id };
  const changed = await api.PATCH("/api/interviews/{id}/", { params: { path }, body: { time: "18:00", note: null } });
  console.log(changed.data?.interview.scheduled_time);
  await api.POST("/api/interviews/{id}/cancel/", { params: { path }, body: { reason: "The position is filled." } });

  const list = await api.GET("/api/interviews/", { params: { query: { role: "recruiter", limit: 50 } } });
  // @ts-expect-error a time is a text
  const wrong: number | undefined = list.data?.[0]?.time;
  // @ts-expect-error there is no such path
  await api.GET("/api/interviews/{id}/nothing/", { params: { path } });
  return list.data ?? [];
}
