// The lower limit of the costs: a Worker that decides nothing. It sends every request to one endpoint, with all
// headers.
export default {
  async fetch(request, env) {
    const { pathname, search } = new URL(request.url);
    const body = await request.arrayBuffer();
    return fetch(env.ENDPOINT + pathname + search, {
      method: request.method,
      headers: request.headers,
      body,
      redirect: "manual",
    });
  },
};
